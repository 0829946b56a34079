"""Classification and localisation: the class and the box of one object, the largest."""
