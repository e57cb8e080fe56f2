"""Commands that are killed, stopped or starved at any moment, then given again: is a row lost, or doubled?"""
