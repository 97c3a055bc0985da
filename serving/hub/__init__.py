"""The consent hub: where systems report what people said, and where people see it and change it."""
