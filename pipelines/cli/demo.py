"""Runs every step on real images, without a network. Run: ganad demo [--out DIR]

scikit-learn includes 1,797 handwritten digits of 8×8 pixels (Alpaydin and Kaynak, 1998). The
detectors are trained on digits 1 to 9; the digit 0 is the anomaly.
"""

from __future__ import annotations

from pathlib import Path

from ganad.detectors.settings import merge_settings
from pipelines.benchmark.data import write_digits
from pipelines.cli.evaluate import evaluate
from pipelines.cli.index import index
from pipelines.cli.query import query
from pipelines.cli.report import report
from pipelines.cluster.connection import connected
from pipelines.console.progress import say
from pipelines.score.run import score
from pipelines.train.request import TrainRequest
from pipelines.train.run import train

GANOMALY = ("image_size=32", "channels=1", "width=32", "epochs=15")
GAUSSIAN = ("image_size=96",)


def demo(out: str, *, debug: bool = False) -> None:
    """Index, train two detectors, score with both, evaluate, query and report, all in `out`."""
    folder = Path(out)
    say("1/6  writing 1,797 handwritten digits as PNG files; 0 is the anomaly")
    write_digits(folder / "digits")
    say("2/6  listing them")
    index([str(folder / "digits" / "train")], str(folder / "train.manifest"))
    index([str(folder / "digits" / "test")], str(folder / "test.manifest"))
    models = [str(folder / "ganomaly"), str(folder / "gaussian")]
    with connected(debug):
        say("3/6  training GANomaly on normal digits, two workers")
        values = merge_settings("ganomaly", assignments=GANOMALY)
        source = (str(folder / "train.manifest"),)
        train(TrainRequest("ganomaly", source, models[0], values, workers=2, gpu=False))
        say(
            "4/6  fitting the Gaussian detector to features of EfficientNet-Lite0, which was "
            "pre-trained on ImageNet"
        )
        values = merge_settings("gaussian", assignments=GAUSSIAN)
        train(TrainRequest("gaussian", source, models[1], values, gpu=False))
        say("5/6  scoring the test digits with both models in one pass")
        table = str(folder / "scores")
        score(models, [str(folder / "test.manifest")], table, gpu=False)
    say("6/6  evaluating and querying")
    evaluate(table)
    query(table, top=5)
    page = str(folder / "report.html")
    report(table, page)
    print(
        f"\nSee\n"
        f"  {page}\n"
        f"      the most anomalous images with heat maps; open it in a browser\n"
        f"  {models[0]}/training/grids\n"
        f"      digits, their reconstructions and maps after each epoch\n"
        f"\nTry\n"
        f"  ganad query {table} --where \"p_value < 0.02 AND label = 'good'\"\n"
        f"      normal digits with low p-values\n"
        f"  ganad show {models[0]}\n"
        f"      the model's settings and calibration\n"
        f"  ganad train gaussian YOUR/NORMAL/IMAGES --out model\n"
        f"      your own images, with the same pre-trained network\n"
    )
