"""References of the families of networks; see `parity.cases`."""
