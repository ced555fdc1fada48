"""Uninformed students (Bergmann, Fauser, Sattlegger, Steger: "Uninformed Students: Student-Teacher
Anomaly Detection with Discriminative Latent Embeddings", CVPR 2020), taught by a frozen network (as
in Wang, Han, Ding, Huang: "Student-Teacher Feature Pyramid Matching", BMVC 2021).

M students S_i regress, from the pixels, the teacher's descriptor y of each place, whose channels
are standardised over the training images: ŷ = (y − μ) / σ. With the mean S̄ of their answers,

    L = Σ_i mean_p ‖S_i − ŷ‖²
    e = ‖S̄ − ŷ‖²,   v = mean_i ‖S_i‖² − ‖S̄‖²
    a(p) = (e − e_μ) / e_σ + (v − v_μ) / v_σ

where e_μ to v_σ are means and spreads over all places of held-out normal images (section 3.3).
The paper distils its teacher from ImageNet's images and averages several of different receptive
fields; the stages of a frozen network take their place. Its students are fast forms of patch
networks; here they are plain convolutions that see 65 pixels around a place, its largest field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ganad.detectors.base import BatchScores
from ganad.detectors.distillation.config import StudentConfig
from ganad.detectors.gradient import GradientDetector, Step
from ganad.detectors.places import TermScale, resized, usable, worst
from ganad.features.maps import FeatureMaps, on_grid

SLOPE = 0.005
"""Of the leaky ReLU (the paper's)."""


class Network(nn.Module):
    """A student: images (n, c, s, s) -> answers (n, channels, grid, grid).

    Convolutions of stride 2 until there are no more places than the teacher has, and two more that
    look around.
    """

    def __init__(self, config: StudentConfig, channels: int, grid: int) -> None:
        super().__init__()
        num_halvings = max(1, int(math.log2(config.input_size / grid)))
        layers: list[nn.Module] = []
        before: int = config.channels
        for number in range(num_halvings):
            width = min(config.width, config.width // 4 * 2**number)
            kernel = 5 if number == 0 else 3
            layers += [nn.Conv2d(before, width, kernel, 2, kernel // 2), nn.LeakyReLU(SLOPE)]
            before = width
        for dilation in (1, 2):
            around = nn.Conv2d(before, config.width, 3, 1, dilation, dilation)
            layers += [around, nn.LeakyReLU(SLOPE)]
            before = config.width
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(before, channels, 1)
        self.grid = grid

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(on_grid(self.body(images), self.grid))
        return found


class PlaceScale(TermScale):
    """e and v at each place, standardised over all places of normal images."""

    def __init__(self) -> None:
        super().__init__(("error", "variance"), ("error", "variance"))

    def fit(self, terms: Mapping[str, np.ndarray]) -> None:
        """Of each term the images' means over places, and their spreads: together they are the mean
        and the spread over all places."""
        for number, name in enumerate(self.names):
            means, spreads = terms[name], terms[f"{name}_spread"]
            self.mean[number] = float(np.mean(means))
            self.spread[number] = usable(math.sqrt(np.mean(spreads**2) + np.var(means)))

    def score(self, places: Mapping[str, Tensor], fraction: float, side: int | None) -> BatchScores:
        """Scores are means over the worst places of a(p), maps are a(p)."""
        terms, score = {}, torch.zeros(())
        for name in self.names:
            values = places[name].double()
            score = score + self._scaled(name, values)
            terms[name] = values.mean((1, 2))
            terms[f"{name}_spread"] = values.std((1, 2), correction=0)
        maps = None if side is None else resized(score, side)
        return BatchScores(worst(score, fraction), terms, maps)


class Student(GradientDetector[StudentConfig]):
    name = "student"
    summary = "students that learn a frozen network's view of normal images, and err on others"
    paper = "Bergmann et al., Uninformed Students, CVPR 2020; teacher as in Wang et al., BMVC 2021"
    good_at = "small local defects, each seen at its place; adapts to the look of the images"
    bad_at = "short trainings; parts that are normal by themselves and in the wrong place"
    Config = StudentConfig
    rebuilds = False
    sees_maps = False

    def __init__(self, config: StudentConfig, load_weights: bool = True) -> None:
        super().__init__(config, load_weights)
        self.maps = FeatureMaps(
            config.backbone, config.input_size, config.seed, load_weights, config.input_key
        )
        self.scale = PlaceScale()
        size = (self.maps.channels, self.maps.grid)
        self.students = nn.ModuleList(Network(config, *size) for _ in range(config.students))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return {
            "students": torch.optim.Adam(self.students.parameters(), rate, weight_decay=decay),
        }

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        target = self.targets(images)
        errors = [squared_distance(student(images), target).mean() for student in self.students]
        # A sum, in which each student has its own part: none learns from the others.
        loss = torch.stack(errors).sum()
        step.update("students", loss)
        return {"regression": loss.detach() / len(errors)}

    def targets(self, images: Tensor) -> Tensor:
        """Prepared images -> ŷ, float32 (n, C, grid, grid)."""
        return self.standardised(self.raw_maps(images))

    def score_pixels(self, x: Tensor, ids: Sequence[str], maps: bool) -> BatchScores:
        assert self.scale is not None
        side = self.config.input_size if maps else None
        return self.scale.score(self.score_places(x, ids), self.config.worst, side)

    def score_places(self, x: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        """Prepared images -> e and v, each (n, grid, grid)."""
        with self.autocast():
            answers = torch.stack([student(x).float() for student in self.students])
        mean = answers.mean(0)
        # Mean square distance from the mean: the same v without cancellation.
        variance = torch.stack([squared_distance(one, mean) for one in answers]).mean(0)
        return {"error": squared_distance(mean, self.targets(x)), "variance": variance}


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖² of the vectors at each place: n×c×h×w -> n×h×w, in float32."""
    return (a.float() - b.float()).square().sum(1)
