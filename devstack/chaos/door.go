package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/serviceerror"

	"commissaire/devstack/harness"
	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// door stands between the API and Temporal. What goes one way can be kept there.
type door struct {
	listener net.Listener
	to       string // host:port
	all      sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	ways  [2]chan struct{} // nil while the way is open: requests, answers
}

func newDoor(to string) (*door, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &door{listener: listener, to: to}
	d.all.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			d.mu.Lock()
			d.conns = append(d.conns, in, out)
			d.mu.Unlock()
			d.all.Go(func() { d.pass(out, in, 0) })
			d.all.Go(func() { d.pass(in, out, 1) })
		}
	})
	return d, nil
}

func (d *door) pass(to, from net.Conn, way int) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		d.mu.Lock()
		open := d.ways[way]
		d.mu.Unlock()
		if open != nil {
			<-open
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// shut keeps requests, or answers, until open.
func (d *door) shut(answers bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	way := 0
	if answers {
		way = 1
	}
	d.ways[way] = make(chan struct{})
}

func (d *door) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, way := range d.ways {
		if way != nil {
			close(way)
			d.ways[i] = nil
		}
	}
}

func (d *door) close() {
	_ = d.listener.Close()
	d.mu.Lock()
	for _, c := range d.conns {
		_ = c.Close()
	}
	d.mu.Unlock()
	d.open()
	d.all.Wait()
}

// accept orders a command and kills the API when the operation is on record: before
// Temporal is asked for its workflow, or, with answers, before the API knows that it has
// it. Whoever ordered repeats that at another API, as one does who got no answer. It gives
// the ids of the operations that came of it.
func (l *lane) accept(ctx context.Context, o order, answers bool) ([]string, error) {
	d, err := newDoor(l.temporalAddress())
	if err != nil {
		return nil, err
	}
	defer d.close()
	harness.Kill(l.Server)
	if l.Server, err = l.Start("server", temporalAddress+d.listener.Addr().String()); err != nil {
		return nil, err
	}
	if err := l.Ready(ctx); err != nil {
		return nil, err
	}
	latest, err := l.latest(ctx)
	if err != nil {
		return nil, err
	}
	post := func() (*harness.Response, error) {
		key := http.Header{"Idempotency-Key": {fmt.Sprintf("%s-%d", o.name, l.round)}}
		return l.RequestWith(ctx, http.MethodPost, "cluster/"+o.cluster+"/command", commandBody(0), key)
	}
	answered, err := l.orderAt(ctx, d, answers, latest, post)
	if err != nil {
		return nil, err
	}
	harness.Kill(l.Server)
	if <-answered == nil {
		return nil, errors.New("the API answered though it was killed")
	}
	if l.Server, err = l.Start("server"); err != nil {
		return nil, err
	}
	if err := l.Ready(ctx); err != nil {
		return nil, err
	}
	response, err := post()
	if err == nil && response.Code/100 != 2 {
		err = fmt.Errorf("the order, repeated: %d: %s", response.Code, response.Body)
	}
	if err != nil {
		return nil, err
	}
	return l.since(ctx, latest)
}

// orderAt sends an order while the door is shut, until it is on record. The API asks
// Temporal for its health before it takes orders, but not each time; where it did, and got
// no answer, nothing was accepted. What becomes of the request is sent to answered, nil
// when there was an answer.
func (l *lane) orderAt(ctx context.Context, d *door, answers bool, latest string, post func() (*harness.Response, error)) (<-chan error, error) {
	var answered chan error
	var asked time.Time
	err := harness.Until(ctx, steerLimit, "an order to be taken with the door shut", func() (bool, error) {
		if answered == nil {
			d.open()
			if err := l.Ready(ctx); err != nil {
				return false, err
			}
			d.shut(answers)
			answered, asked = make(chan error, 1), time.Now()
			to := answered
			go func() { _, err := post(); to <- err }() // ends with the API at the latest
		}
		ids, err := l.since(ctx, latest)
		if err != nil || len(ids) == 0 {
			select {
			case err := <-answered:
				if err != nil {
					return false, fmt.Errorf("order, %s after it was sent: %w", time.Since(asked), err)
				}
				answered = nil
			default:
			}
			return false, err
		}
		_, err = l.Temporal.DescribeWorkflowExecution(ctx, workflows.CommandWorkflowID(fleet.DefaultTenant, ids[0]), "")
		var none *serviceerror.NotFound
		switch {
		case errors.As(err, &none):
			return !answers, nil
		case err == nil && !answers:
			return false, errors.New("the workflow is there, though nobody could ask for it")
		}
		return err == nil, err
	})
	return answered, err
}

const temporalAddress = "COMMISSAIRE_TEMPORAL_ADDRESS="

// temporalAddress is where Temporal is.
func (l *lane) temporalAddress() (address string) {
	for _, e := range l.Environment() {
		if value, is := strings.CutPrefix(e, temporalAddress); is {
			address = value
		}
	}
	return address
}
