package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// clients ask at once.
const clients = 32

// sample is what one round of requests gave.
type sample struct {
	rate float64 // requests per second
	took []time.Duration
}

// load sends requests from all clients for a while. An answer other than 200 is an
// error.
func load(ctx context.Context, url string, d time.Duration, prepare func(*http.Request)) (sample, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var s sample
	var failed error
	var all sync.WaitGroup
	begin := time.Now()
	for range clients {
		all.Go(func() {
			var took []time.Duration
			var err error
			for err == nil && time.Since(begin) < d {
				at := time.Now()
				err = get(ctx, client, url, prepare)
				took = append(took, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			s.took = append(s.took, took...)
			if err != nil {
				failed = err
			}
		})
	}
	all.Wait()
	s.rate = float64(len(s.took)) / time.Since(begin).Seconds()
	return s, failed
}

func get(ctx context.Context, client *http.Client, url string, prepare func(*http.Request)) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	prepare(r)
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// p99 of the times of several rounds.
func p99(rounds []sample) time.Duration {
	var all []time.Duration
	for _, s := range rounds {
		all = append(all, s.took...)
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

// medianRate of several rounds.
func medianRate(rounds []sample) float64 {
	var all []float64
	for _, s := range rounds {
		all = append(all, s.rate)
	}
	slices.Sort(all)
	return all[len(all)/2]
}
