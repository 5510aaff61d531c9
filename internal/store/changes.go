package store

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	listenSQL = "LISTEN commissaire"

	listenAlive = 30 * time.Second // how often the connection is tried while it is silent
	listenFirst = 100 * time.Millisecond
	listenMost  = 5 * time.Second // between attempts to connect
)

// changes wakes those who follow operations. One connection listens for all of
// them, from the first follower on until Close.
type changes struct {
	mu        sync.Mutex
	followers map[string]map[chan struct{}]bool // by operation
	stop      context.CancelFunc                // nil while nobody listens
	closed    bool
	done      sync.WaitGroup
}

// Changes gives a channel that has something in it when the operation may have
// changed since it was last read from; what has changed is asked of the store.
// After a lost connection everybody is woken. It ends with the function it gives,
// or with ctx.
func (db *DB) Changes(ctx context.Context, operationID string) (<-chan struct{}, func()) {
	c := &db.changes
	wake := make(chan struct{}, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.followers == nil {
		c.followers = map[string]map[chan struct{}]bool{}
	}
	if c.followers[operationID] == nil {
		c.followers[operationID] = map[chan struct{}]bool{}
	}
	c.followers[operationID][wake] = true
	if c.stop == nil && !c.closed {
		ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		c.stop = stop
		c.done.Go(func() { db.listen(ctx) })
	}
	leave := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.followers[operationID], wake)
		if len(c.followers[operationID]) == 0 {
			delete(c.followers, operationID)
		}
	}
	stop := context.AfterFunc(ctx, leave)
	return wake, func() { stop(); leave() }
}

// listen wakes followers until ctx ends, with a new connection when one breaks.
func (db *DB) listen(ctx context.Context) {
	wait := listenFirst
	for ctx.Err() == nil {
		if db.listenOnce(ctx) {
			wait = listenFirst
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, listenMost)
	}
}

// listenOnce listens until its connection breaks, and says whether there was one.
func (db *DB) listenOnce(ctx context.Context) (connected bool) {
	conn, err := pgx.ConnectConfig(ctx, db.pool.Config().ConnConfig)
	if err != nil {
		return false
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), db.patience*pingTimeout)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, listenSQL); err != nil {
		return false
	}
	db.changes.wake("") // what changed while nobody listened
	for {
		heard, err := waitFor(ctx, conn)
		switch {
		case err != nil:
			return true
		case heard != "":
			db.changes.wake(heard)
		}
	}
}

// waitFor gives the operation that changed, or "" when all was silent and the
// connection still works.
func waitFor(ctx context.Context, conn *pgx.Conn) (operationID string, err error) {
	silent, cancel := context.WithTimeout(ctx, listenAlive)
	defer cancel()
	n, err := conn.WaitForNotification(silent)
	if err == nil {
		return n.Payload, nil
	}
	if silent.Err() == nil || ctx.Err() != nil {
		return "", err
	}
	ctx, cancel = context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return "", conn.Ping(ctx)
}

// wake wakes the followers of an operation; "" means all.
func (c *changes) wake(operationID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, followers := range c.followers {
		if operationID != "" && operationID != id {
			continue
		}
		for f := range followers {
			select {
			case f <- struct{}{}:
			default: // it has not looked since it was last woken
			}
		}
	}
}

func (c *changes) close() {
	c.mu.Lock()
	c.closed = true
	if c.stop != nil {
		c.stop()
	}
	c.mu.Unlock()
	c.done.Wait()
}
