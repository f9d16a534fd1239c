package main

import (
	"slices"
	"time"
)

// percentiles sorts ds and returns the function that looks one up; p is in percent.
func percentiles(ds []time.Duration) func(p float64) time.Duration {
	slices.Sort(ds)
	return func(p float64) time.Duration { return ds[min(len(ds)-1, int(float64(len(ds))*p/100))] }
}
