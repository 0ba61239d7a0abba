"""The whole of it, as admins and teams meet it: the image, installed on a real node, and Pods that use the tokens."""
