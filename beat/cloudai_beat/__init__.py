"""The control process: the optimisation epoch (spec section 7) and the recorder of the task history."""
