"""Raw handles over Corosync's C libraries. Importing this package needs neither these nor the extension module."""

from ._endpoint import SYSTEM as SYSTEM, CorosyncEndpoint as CorosyncEndpoint
