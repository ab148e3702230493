ENGINES=("replay",)
def run(**k): raise NotImplementedError
