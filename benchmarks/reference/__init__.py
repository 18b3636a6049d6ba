"""This project beside the authors' code of ARAT, https://github.com/futakw/AR-AT, of which users give a checkout."""
