# Table 2, N = 9, L = 1 in stage 3: CHHH of Table 1.
_base_ = 'table1_chhh.py'
