"""Where a model's files are: a folder here, the bundled model's, or a snapshot from the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from refusal.config import BUNDLED
from refusal.errors import BadInput, Unavailable
from refusal.weights.safetensors_files import OTHER_FORMATS


def local_folder(model: str | Path) -> Path | None:
    """Return the folder of a model that is here, the bundled one's included; None for any other name."""
    if str(model) == BUNDLED:
        from refusal.organism import checkpoint  # the bundled weights live beside the code

        return Path(checkpoint("chat"))
    return Path(model) if Path(model).is_dir() else None


def source_folder(model: str | Path) -> Path:
    """Return the folder of a model: its own, the bundled one's, or that of a Hub snapshot, downloaded if need be.

    Raises BadInput for a name that is neither a folder nor a model on the Hub, Unavailable without a connection.
    """
    if (folder := local_folder(model)) is not None:
        return folder
    if Path(model).exists():
        raise BadInput(f"{model} is a file. Give the folder of a transformers checkpoint.")
    try:
        return Path(snapshot_download(str(model), ignore_patterns=list(OTHER_FORMATS)))
    except HFValidationError as error:
        raise BadInput(
            f"'{model}' is neither a folder here nor a name that the Hugging Face Hub could have: {error} Give one."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise Unavailable(
            f"'{model}' is no folder here, is not in the model cache, and the Hugging Face Hub cannot be reached. "
            "Give the folder of a checkpoint, or try again with a connection."
        ) from error
    except HfHubHTTPError as error:
        raise BadInput(
            f"'{model}' is no folder here, and the Hugging Face Hub refuses it: {error} Check its name, and "
            "whether your account may read it."
        ) from error
