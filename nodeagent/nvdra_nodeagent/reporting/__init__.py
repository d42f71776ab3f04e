"""Telling users what became of their claims: Events, and conditions of devices in claims."""
