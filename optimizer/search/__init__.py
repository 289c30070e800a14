"""One session of a search: who proposes, when it ends, who watches."""
