"""Every error that ganad raises on purpose.

* GanadError               one sentence, begins with what the user typed, ends with the remedy
  x ConfigError            a key, value or flag is wrong
  x ArchiveError           images cannot be listed or reached
    x ManifestError        a manifest is missing, unfinished or not one
    x Outage               storage has not answered for so long that a job gave up
  x ModelError             a folder is not a saved model, or its files do not belong together
    x NoMapsError          a model makes no anomaly maps
  x Mismatch               an output folder holds the work of another model, config or manifest
  x EngineError            an engine cannot compile or run a detector
  x TrainingError          training cannot start or go on (abnormal labels, NaN, collapse)
  x TableError             a folder is not a score table
    x QueryError           the SQL over a score table is wrong
  x ClusterError           a cluster cannot be reached, refuses, or has no such job
    x CapacityError        the cluster cannot ever run what was asked for
  x OutputError            standard output is full or cannot hold a character
"""


class GanadError(Exception):
    """Base of all errors whose message is meant for the user."""


class ConfigError(GanadError):
    """A key, value or flag is wrong."""


class ArchiveError(GanadError):
    """Images cannot be listed or reached."""


class ManifestError(ArchiveError):
    """A manifest is missing, unfinished or not one."""


class Outage(ArchiveError):
    """Storage has not answered for so long that a job gave up."""


class ModelError(GanadError):
    """A folder is not a saved model, or its files do not belong together."""


class NoMapsError(ModelError):
    """A model makes no anomaly maps."""


class Mismatch(GanadError):
    """An output folder holds the work of another model, config or manifest."""


class EngineError(GanadError):
    """An engine cannot compile or run a detector."""


class TrainingError(GanadError):
    """Training cannot start or go on."""


class TableError(GanadError):
    """A folder is not a score table."""


class QueryError(TableError):
    """The SQL over a score table is wrong."""


class ClusterError(GanadError):
    """A cluster cannot be reached, refuses, or has no such job."""


class CapacityError(ClusterError):
    """The cluster cannot ever run what was asked for."""


class OutputError(GanadError):
    """Standard output is full or cannot hold a character."""
