"""The nvdra API as types: opaque configs, custom resources, feature gates and names. No I/O."""
