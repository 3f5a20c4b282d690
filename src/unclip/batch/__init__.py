"""Batch work on whole data sets, unit by unit, in one process or on a Ray cluster; finished units are never done twice."""
