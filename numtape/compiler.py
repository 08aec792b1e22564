"""compile()."""


def compile(function, **options):  # replaced below the same name while the runtime is written
    return function
