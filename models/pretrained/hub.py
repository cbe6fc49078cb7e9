"""Downloads weights from the Hugging Face Hub, where timm and transformers publish theirs."""

from pathlib import Path

from errors import UserError

PREFIX = 'hub:'
FILES = ('model.safetensors', 'pytorch_model.bin')


def download(name: str) -> Path:
    """Returns the file of weights of a repository; downloads it unless it is in the Hub's cache.

    Args:
      name: the repository, such as 'hub:timm/resnet50.a1_in1k'.

    Raises:
      UserError: the repository does not exist or has no weights, the Hub cannot be reached, or
        huggingface_hub is not installed.
    """
    if not name.startswith(PREFIX):
        raise UserError(
            f'--pretrained={name} is invalid: it must be {PREFIX}OWNER/NAME, a repository of the '
            'Hub.'
        )
    try:
        import huggingface_hub
        from huggingface_hub import errors
        from huggingface_hub.utils import logging
    except ImportError as error:
        raise UserError(
            f'{name} needs huggingface_hub: run `pip install huggingface_hub`, or download the '
            'file by other means and pass it as --source.'
        ) from error
    logging.set_verbosity_error()  # otherwise it logs every attempt to connect
    repository = name.removeprefix(PREFIX)
    for file in FILES:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file))
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            raise UserError(
                f'{name} is not in the cache, and the Hub cannot be reached: check the network, or '
                f'download {" or ".join(FILES)} on another machine and pass it as --source.'
            ) from error
        except errors.EntryNotFoundError:
            continue
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise UserError(
                f'The Hub has no repository "{repository}" that you may read: check the name, '
                'which is OWNER/NAME, such as timm/resnet50.a1_in1k.'
            ) from error
        except OSError as error:
            reason = ' '.join(str(error).split())[:200]
            raise UserError(
                f'{name} could not be downloaded ({reason}): try again, or download the file by '
                'other means and pass it as --source.'
            ) from error
    raise UserError(
        f'The repository "{repository}" has neither {" nor ".join(FILES)}: choose another one.'
    )
