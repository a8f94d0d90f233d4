"""The C libraries of Corosync as raw handles. Importing this needs neither them nor the extension module."""

from ._endpoint import SYSTEM as SYSTEM, CorosyncEndpoint as CorosyncEndpoint
