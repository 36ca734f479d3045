"""The API process of the one-machine shop: `api.py`, and beside it an issuer of tokens for everybody."""

import sys

import api
from deploy.issuer import Issuer, dev_routes
from deploy.stack import StackError, StackSettings, read_settings
from services.shared.process import end


def main() -> int:
    """The process's exit status, as `api.main` says it."""
    try:
        settings = read_settings(StackSettings)
        issuer = Issuer.of(settings.data_dir)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    return api.main(dev_routes(issuer, settings.this_machine))


if __name__ == "__main__":
    end(main())
