"""Draw graphs, timelines and cards: SVG and HTML from templates that escape by default."""
