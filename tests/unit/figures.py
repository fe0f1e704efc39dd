"""What the tests read off figures."""


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def texts(axis):
    return [text.get_text() for text in axis.texts]
