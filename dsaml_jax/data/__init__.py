"""Songs and ratings in memory, and annotator tasks drawn from them."""
