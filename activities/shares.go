package activities

import (
	"context"
	"sync"
)

// shares bounds how many hosts are checked at a time, and shares that out among the pages
// under way: one of a cluster whose hosts are all silent keeps no other page waiting for
// longer than a check.
type shares struct {
	most int

	mu           sync.Mutex
	pages, taken int
	freed        chan struct{} // closed when there may be room for who waits
}

func newShares(most int) *shares { return &shares{most: most, freed: make(chan struct{})} }

// share is what one page has of it.
type share struct {
	of    *shares
	taken int
}

// join begins a page; leave ends it.
func (s *shares) join() *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages++
	return &share{of: s}
}

func (p *share) leave() {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	p.of.pages--
	p.of.tell()
}

// take waits for room to check one host. The error is that of ctx.
func (p *share) take(ctx context.Context) error {
	for {
		freed, ok := p.try()
		if ok {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *share) try() (freed <-chan struct{}, ok bool) {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	if p.of.taken >= p.of.most || p.taken >= max(1, p.of.most/p.of.pages) {
		return p.of.freed, false
	}
	p.of.taken++
	p.taken++
	return nil, true
}

func (p *share) give() {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	p.of.taken--
	p.taken--
	p.of.tell()
}

// tell wakes who waits. It wants mu.
func (s *shares) tell() {
	close(s.freed)
	s.freed = make(chan struct{})
}
