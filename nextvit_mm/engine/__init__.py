from .launch import add_common_arguments, run_command, test, train

__all__ = ['add_common_arguments', 'run_command', 'test', 'train']
