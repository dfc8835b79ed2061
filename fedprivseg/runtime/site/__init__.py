"""The site: a Flower ClientApp behind its gate."""
