"""Fetches weights from the Hugging Face Hub, where timm and transformers publish theirs."""

from pathlib import Path

from errors import UserError

PREFIX = 'hub:'
FILES = ('model.safetensors', 'pytorch_model.bin')


def download(name: str) -> Path:
    """Returns the file of weights in a repository, downloaded unless it is in the Hub's cache.

    Args:
      name: such as 'hub:timm/resnet50.a1_in1k'.

    Raises:
      UserError: no such repository, no weights in it, no network, or huggingface_hub is missing.
    """
    if not name.startswith(PREFIX):
        raise UserError(
            f'--pretrained={name} should be {PREFIX}OWNER/NAME, a repository of the Hub.'
        )
    try:
        import huggingface_hub
        from huggingface_hub import errors
        from huggingface_hub.utils import logging
    except ImportError as error:
        raise UserError(
            f'{name} needs huggingface_hub: pip install huggingface_hub; or download the file by '
            'other means and name it with --source.'
        ) from error
    logging.set_verbosity_error()  # it reports every attempt to connect
    repository = name.removeprefix(PREFIX)
    for file in FILES:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file))
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            raise UserError(
                f'{name} is not in the cache and the Hub cannot be reached: connect, or download '
                f'{" or ".join(FILES)} on another machine and name it with --source.'
            ) from error
        except errors.EntryNotFoundError:
            continue
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise UserError(
                f'the Hub has no repository "{repository}" that you may read; it should be '
                'OWNER/NAME, such as timm/resnet50.a1_in1k.'
            ) from error
        except OSError as error:
            reason = ' '.join(str(error).split())[:200]
            raise UserError(f'{name} could not be downloaded: {reason}.') from error
    raise UserError(f'the repository "{repository}" has no {" and no ".join(FILES)}.')
