"""The history in MongoDB: what ran where, how long it took, and what the optimiser made of it (spec sections 7 and 8).

    records     what is read back: TaskHistory, WorkerStats
    documents   from events of the stream to documents, and back to records; pure
    store       HistoryStore: the collections, written in bulk and read by time
    recorder    Recorder: from the event stream in Redis to the store

`store` needs pymongo (`pip install 'cloudai[beat]'`); nothing else of the library imports it.
"""
