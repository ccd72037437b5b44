"""What is optimised: the objectives by name, and their regularisation."""
