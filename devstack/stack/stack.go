// Package stack runs all of Commissaire in this process, for development and
// the demo: a private Postgres, Temporal with its web UI, the API server and a
// worker. It keeps its state in one folder and goes on with it next time:
//
//	lock            held while a stack runs on the folder
//	postgres/       the private Postgres: inventory, operations, Temporal's state
//	seal.key        seals credentials at rest
//	users.json      who may use the API
//	netrc           the same user's password, for curl --netrc-file
//	commctl.json    the same and where the API is, for commctl (COMMCTL_CONFIG)
//	temporal.log    what Temporal calls an error
package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	apiclient "commissaire/api/client"
	"commissaire/devstack/loopback"
	"commissaire/devstack/temporal"
	"commissaire/internal/app"
	"commissaire/internal/config"
	"commissaire/internal/privatepg"
)

const (
	database = "commissaire"

	readyTimeout = 2 * time.Minute // for a busy machine; what fails ends it sooner
	pollInterval = 50 * time.Millisecond
	// stopTimeout is how long requests and steps may finish when it stops.
	stopTimeout = 5 * time.Second
)

// Options say where the stack keeps its state and what it listens on. Ports are
// on 127.0.0.1; 0 is a free one.
type Options struct {
	Dir          string
	Port         int // of the API
	TemporalPort int // of Temporal's frontend
	UIPort       int // of Temporal's web UI
	// Logger gets what the API server and the worker say.
	Logger *slog.Logger
	// Progress gets a line about each part that is up.
	Progress io.Writer
}

// Stack is running Commissaire.
type Stack struct {
	// URL is the address of the API's server, without a path.
	URL string
	// User may do everything; Password is also in the files Netrc and Commctl.
	User, Password, Netrc string
	// Commctl is a configuration file of commctl that speaks to this stack.
	Commctl string

	temporal *temporal.Server
	failed   chan error // the first part that ended by itself
	closers  []func() error
}

// Start starts the parts one after another and returns when the API says that
// it is ready. ctx bounds the start, not the life of the stack.
func Start(ctx context.Context, o Options) (_ *Stack, err error) {
	s := &Stack{failed: make(chan error, 1)}
	defer func() {
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx) // what a part says that was cut off misleads
		}
		err = errors.Join(err, s.Stop())
	}()
	dir, err := makeDir(o.Dir)
	if err != nil {
		return nil, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, unlock)
	if err := loopback.Choose(
		loopback.Wanted{Port: &o.Port, What: "the API"},
		loopback.Wanted{Port: &o.TemporalPort, What: "the Temporal frontend"},
		loopback.Wanted{Port: &o.UIPort, What: "the Temporal web UI"},
	); err != nil {
		return nil, err
	}
	said := progress{to: o.Progress, last: time.Now()}

	pg, err := s.startPostgres(ctx, filepath.Join(dir, "postgres"))
	if err != nil {
		return nil, err
	}
	said.line("Postgres", filepath.Join(dir, "postgres"))
	if err := s.startTemporal(ctx, pg, dir, o); err != nil {
		return nil, err
	}
	said.line("Temporal", s.temporal.Addr())
	c, err := s.configure(dir, pg.DSN(database), o.Port)
	if err != nil {
		return nil, err
	}
	if err := app.Migrate(ctx, c, o.Logger); err != nil {
		return nil, err
	}
	s.run(c, o.Logger)
	if err := s.untilReady(ctx); err != nil {
		return nil, err
	}
	said.line("API and worker", s.URL)
	return s, nil
}

func (s *Stack) startPostgres(ctx context.Context, dir string) (*privatepg.Server, error) {
	pg, err := privatepg.Start(ctx, privatepg.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() error { return pg.Stop(privatepg.Fast) })
	return pg, pg.CreateDatabase(ctx, database)
}

func (s *Stack) startTemporal(ctx context.Context, pg *privatepg.Server, dir string, o Options) error {
	file, err := os.OpenFile(filepath.Join(dir, "temporal.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, file.Close)
	log := slog.New(slog.NewTextHandler(file, &slog.HandlerOptions{Level: slog.LevelError}))
	s.temporal, err = temporal.Start(ctx, temporal.Options{PostgresDSN: pg.DSN("postgres"), Port: o.TemporalPort, UIPort: o.UIPort, OneNamespace: true, Logger: log})
	if err != nil {
		return fmt.Errorf("%w (see %s)", err, file.Name())
	}
	s.closers = append(s.closers, s.temporal.Stop)
	return nil
}

// configure gives the settings of API server and worker.
func (s *Stack) configure(dir, dsn string, port int) (*config.Config, error) {
	key, users, err := s.secrets(dir)
	if err != nil {
		return nil, err
	}
	c := config.Defaults()
	c.ListenInterface, c.ListenPort = loopback.IP, port
	c.DatabaseURL = dsn
	c.TemporalAddress = s.temporal.Addr()
	c.SealingKeyFile, c.UsersFile = key, users
	c.ShutdownTimeout = stopTimeout
	s.URL = "http://" + c.Listen()
	if err := s.writeCommctl(dir); err != nil {
		return nil, err
	}
	return c, c.Validate()
}

// run runs the API server and the worker until the stack stops.
func (s *Stack) run(c *config.Config, log *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	start := func(name string, f func(context.Context, *config.Config, *slog.Logger) error) (ended chan struct{}) {
		ended = make(chan struct{})
		go func() {
			defer close(ended)
			err := f(ctx, c, log)
			if ctx.Err() != nil {
				return // it was asked to end
			}
			select {
			case s.failed <- fmt.Errorf("%s ended: %w", name, err):
			default: // another part was first
			}
		}()
		return ended
	}
	server, worker := start("the API server", app.RunServer), start("the worker", app.RunWorker)
	s.closers = append(s.closers, func() error {
		cancel()
		<-server
		<-worker
		return nil
	})
}

func (s *Stack) untilReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case err := <-s.failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("the API does not get ready: %w", err)
		case <-time.After(pollInterval):
		}
	}
}

func (s *Stack) ready(ctx context.Context) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	r, err := c.ReadyzWithResponse(ctx)
	if err == nil && r.StatusCode() != http.StatusOK {
		err = fmt.Errorf("GET /readyz: %s: %s", r.Status(), r.Body)
	}
	return err
}

// Client is a client of the API that logs in as User.
func (s *Stack) Client() (*apiclient.ClientWithResponses, error) {
	return apiclient.NewClientWithResponses(s.URL, apiclient.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.SetBasicAuth(s.User, s.Password)
		return nil
	}))
}

// TemporalUI is the address of Temporal's web UI.
func (s *Stack) TemporalUI() string { return s.temporal.UIURL() }

// Wait returns nil when ctx ends, and an error when a part of the stack ends
// before.
func (s *Stack) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// Stop ends the parts in reverse order. The state stays.
func (s *Stack) Stop() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// progress tells what is up and how long it took.
type progress struct {
	to   io.Writer
	last time.Time
}

func (p *progress) line(what, where string) {
	if p.to != nil {
		fmt.Fprintf(p.to, "  %-15s %-5s %s\n", what, fmt.Sprintf("%.1fs", time.Since(p.last).Seconds()), where)
	}
	p.last = time.Now()
}
