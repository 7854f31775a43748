"""Bytes of the array's firmware: RTP in, aligned blocks out."""
