"""The state file of `dra-driver-nvidia-gpu` 25.x: taken over at first start, written to go back."""
