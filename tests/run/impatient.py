"""`mmalign`, whose collectives give up after three seconds instead of many minutes."""

from datetime import timedelta

import torch.distributed.distributed_c10d

from mmalign.cli.main import main

if __name__ == "__main__":
    torch.distributed.distributed_c10d.default_pg_timeout = timedelta(seconds=3)
    main()
