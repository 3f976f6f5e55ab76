"""Every error that a user can meet, as one tree.

    SubspaceError                    exit 1   the run failed
    ├── UsageError                   exit 2   command line
    ├── ConfigError                  exit 2   recipe
    ├── MethodError                  exit 2   a method was asked for what it cannot do
    │   └── NotMergeableError                 prefix and prompt have no weights to fold into
    ├── DataError                    exit 3   rows, columns, labels
    ├── CheckpointError              exit 4   checkpoint or model integrity
    ├── ResourceError                exit 5   disk, memory, device
    ├── NumericsError                exit 6   NaN, Inf, divergence
    ├── LockError                    exit 7   another process holds the run folder
    ├── SecurityError                exit 8   refused: could run code or leave its root
    └── StoppedError                 exit 75 (SIGTERM) or 130 (SIGINT): saved, can be resumed

An error says where, what was found, what was expected and what to do, and carries a code of the table `CODES`:

    E-CFG-016 recipe.yaml:9 method.target_modules: no module matches 'q_pro'; expected one of q_proj, v_proj. ...
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "CODES",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "LockError",
    "MethodError",
    "NotMergeableError",
    "NumericsError",
    "ResourceError",
    "SecurityError",
    "StoppedError",
    "SubspaceError",
    "UsageError",
]

CODES: dict[str, str] = {
    # Recipes
    "E-CFG-001": "recipe file missing",
    "E-CFG-002": "recipe path is not a regular file",
    "E-CFG-003": "recipe is empty or its top level is not a mapping",
    "E-CFG-004": "YAML syntax",
    "E-CFG-005": "more than one YAML document",
    "E-CFG-006": "duplicate key",
    "E-CFG-007": "unknown key",
    "E-CFG-009": "number out of range, not finite, or not a number",
    "E-CFG-010": "value of the wrong type or outside its choices",
    "E-CFG-011": "required key missing",
    "E-CFG-012": "YAML alias, too deep or too large",
    "E-CFG-013": "recipe is not UTF-8 text",
    "E-CFG-014": "options that exclude each other",
    "E-CFG-015": "length of training undefined or inconsistent",
    "E-CFG-016": "target modules or rank do not fit the model",
    "E-CFG-017": "target is tied to another weight",
    "E-CFG-018": "unknown name of a method, task or template",
    "E-CFG-019": "device is not available",
    "E-CFG-020": "an optional package is missing",
    "E-CFG-021": "extends: base recipe missing or nested",
    "E-CFG-022": "LLaMA-Factory file cannot be migrated",
    "E-CFG-023": "output folder unusable",
    # Command line
    "E-CLI-001": "unknown command or option, or a bad value of one",
    "E-CLI-002": "malformed override",
    "E-CLI-003": "seed out of range",
    "E-CLI-004": "options or states that contradict each other",
    # Data
    "E-DAT-001": "data missing or empty",
    "E-DAT-002": "file content does not match its format",
    "E-DAT-003": "row is not valid JSON",
    "E-DAT-004": "required column absent",
    "E-DAT-005": "field of the wrong type",
    "E-DAT-006": "label outside the classes",
    "E-DAT-007": "train and evaluation rows overlap, or ids repeat",
    "E-DAT-008": "rows keep no target token",
    "E-DAT-009": "row too large, too wide or too deep",
    "E-DAT-010": "text encoding",
    "E-DAT-011": "archive unusable",
    "E-DAT-012": "parquet or CSV damaged",
    "E-DAT-013": "chat turns malformed",
    "E-DAT-014": "tokenizer lacks a token or a template",
    "E-DAT-015": "data changed during or since the run",
    "E-DAT-016": "nothing to predict, or prompt longer than the context",
    "E-DAT-017": "data set unknown or not reachable",
    # Checkpoints and models
    "E-CKP-001": "no complete checkpoint",
    "E-CKP-002": "weights file unreadable",
    "E-CKP-003": "hash differs",
    "E-CKP-004": "non-finite weights",
    "E-CKP-005": "tensors missing, unexpected or of another shape",
    "E-CKP-006": "made for another base model, recipe or run",
    "E-CKP-007": "written by another schema version",
    "E-CKP-008": "cannot merge",
    "E-CKP-009": "an optional package is needed to read this",
    "E-CKP-010": "model missing or not reachable",
    # Evaluation
    "E-EVL-001": "evaluation task or metric unknown",
    # Methods
    "E-MTH-001": "the method does not support this option",
    # Resources
    "E-RES-001": "out of memory",
    "E-RES-002": "disk full or not writable",
    "E-RES-003": "no usable cache folder",
    "E-RES-004": "the sandbox did not start",
    # Numerics
    "E-NUM-001": "loss or gradient is not finite",
    # Lock
    "E-LCK-001": "run folder is in use",
    # Security
    "E-SEC-001": "YAML tag refused",
    "E-SEC-002": "secret in a recipe",
    "E-SEC-003": "path leaves its root",
    "E-SEC-004": "remote code refused",
    "E-SEC-005": "archive bomb or escape",
    "E-SEC-006": "format that can carry code",
    "E-SEC-007": "chat template refused",
    "E-SEC-008": "running code of a model is not allowed",
    "E-SEC-009": "no sandbox on this machine",
    # Stops
    "E-RUN-001": "the run failed",
    "E-RUN-075": "stopped by a signal; saved; can be resumed",
}


class SubspaceError(Exception):
    """An error told to the user as one line.

    Args:
        code: Key of `CODES`.
        where: Place: `file:line:key`, `module`, `step 12`.
        found: What was found there.
        expected: What would have been right, or "".
        action: What to do, a full sentence, or "".

    Attributes:
        others: What else was found wrong at once, each an error of its own.

    Raises:
        KeyError: If `code` is not in `CODES`.

    >>> print(ConfigError("E-CFG-001", where="x.yaml", found="no such file", action="Check the path."))
    E-CFG-001 x.yaml: no such file. Check the path.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, code: str, *, where: str, found: str, expected: str = "", action: str = "") -> None:
        CODES[code]  # an unlisted code is a mistake of ours
        self.code, self.where, self.found, self.expected, self.action = code, where, found, expected, action
        wanted = f"; expected {expected}" if expected else ""
        advice = f" {action}" if action else ""
        self.others: tuple[SubspaceError, ...] = ()
        super().__init__(f"{code} {where}: {found}{wanted}.{advice}")

    def __str__(self) -> str:
        more = f" (and {len(self.others)} more)" if self.others else ""
        return f"{self.args[0]}{more}"

    def __reduce__(self) -> tuple[object, ...]:
        given = (type(self), self.code, self.where, self.found, self.expected, self.action)
        return _rebuild, given, {"others": self.others}


def _rebuild(cls: type[SubspaceError], code: str, where: str, found: str, expected: str, action: str) -> SubspaceError:
    return cls(code, where=where, found=found, expected=expected, action=action)


class UsageError(SubspaceError):
    """The command line cannot be understood."""

    exit_status = 2


class ConfigError(SubspaceError):
    """A recipe is wrong."""

    exit_status = 2


class MethodError(SubspaceError):
    """A method was asked for something it refuses; its card says why."""

    exit_status = 2


class NotMergeableError(MethodError):
    """The method leaves nothing that could be folded into plain weights."""


class DataError(SubspaceError):
    """Rows, columns or labels are wrong."""

    exit_status = 3


class CheckpointError(SubspaceError):
    """A checkpoint or model is missing, damaged, or belongs elsewhere."""

    exit_status = 4


class ResourceError(SubspaceError):
    """Disk, memory or device is not enough."""

    exit_status = 5


class NumericsError(SubspaceError):
    """Loss or gradients are not finite."""

    exit_status = 6


class LockError(SubspaceError):
    """Another process holds the run folder."""

    exit_status = 7


class SecurityError(SubspaceError):
    """Refused because it could run foreign code, leak a secret, or leave its root."""

    exit_status = 8


class StoppedError(SubspaceError):
    """A signal stopped the run after it had saved; `exit_status` is 75 for SIGTERM and 130 for SIGINT."""

    exit_status = 75
