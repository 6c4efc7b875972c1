"""The live page: a running stream in a browser, for lectures.

    photos.py    the photographs, tokenized once
    engine.py    one frame of the stream at a time, by the protocol itself, in virtual time
    controls.py  what a slider may change in a scenario
    history.py   the recent past: quality and packet fates of frames, and their losses
    stages.py    photograph -> index map -> packets -> lost -> filled -> image: a picture of each
    charts.py    loss of quality and packets over time, as SVG
    text.py      what is said about all of it
    playback.py  runs the engine in a worker thread: play, pause, step
    view.py      pictures and words of a frame, which change together
    layout.py    the elements of the page (NiceGUI); page.js, page.css beside it
    server.py    serves it on this machine only

What stands above the layout knows no browser; the page only shows what the engine made.
"""
