"""PyTorch networks written from the papers, where no package has them.

Of the repositories whose weights they load they share only the names of the parameters.
"""
