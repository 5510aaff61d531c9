// Package demo shows Commissaire at work: it starts five sshd hosts on
// loopback, bootstraps them into a cluster by the REST API, and restarts the
// cluster, all as a client would.
package demo

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	apiclient "commissaire/api/client"
	"commissaire/devstack/stack"
	"commissaire/internal/fleet"
	"commissaire/internal/remote/remotetest"
)

const (
	cluster = "demo"

	bootstrapTimeout = 2 * time.Minute
	restartTimeout   = 10 * time.Minute
	pollInterval     = 200 * time.Millisecond
)

// hosts are what the demo's cluster is made of.
var hosts = []remotetest.HostConfig{
	{Name: "web1", OS: remotetest.OS{ID: "debian", VersionID: "12"}},
	{Name: "web2", OS: remotetest.OS{ID: "debian", VersionID: "12"}},
	{Name: "app1", OS: remotetest.OS{ID: "fedora", VersionID: "43"}},
	{Name: "app2", OS: remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}},
	{Name: "db1", OS: remotetest.OS{ID: "centos", VersionID: "9"}},
}

// Demo is five running hosts and a client of the API.
type Demo struct {
	fleet *remotetest.Fleet
	api   *apiclient.ClientWithResponses
	out   io.Writer
}

// Start starts the hosts. Their folder dir makes them the same hosts next time.
func Start(ctx context.Context, s *stack.Stack, dir string, out io.Writer) (*Demo, error) {
	api, err := s.Client()
	if err != nil {
		return nil, err
	}
	f, err := remotetest.Open(ctx, dir, hosts...)
	if err != nil {
		return nil, fmt.Errorf("start the demo's hosts: %w", err)
	}
	for _, h := range f.Hosts() {
		// Slow enough to be seen.
		h.SetReboot(remotetest.Reboot{Shutdown: 500 * time.Millisecond, Downtime: time.Second})
	}
	return &Demo{fleet: f, api: api, out: out}, nil
}

// Close ends the hosts.
func (d *Demo) Close() error { return d.fleet.Close() }

// Run bootstraps the hosts that are not yet, and restarts the cluster. Hosts
// and cluster of an earlier run are taken as they are.
func (d *Demo) Run(ctx context.Context) error {
	fmt.Fprintf(d.out, "Bootstrapping %d hosts into cluster %s.\n", len(hosts), cluster)
	r, err := insist(ctx, func(ctx context.Context) (*apiclient.PutClusterResponse, error) {
		return d.api.PutClusterWithResponse(ctx, cluster, apiclient.ClusterPut{})
	})
	if err := check("put cluster "+cluster, r, err, http.StatusCreated); err != nil {
		return err
	}
	for _, h := range d.fleet.Hosts() {
		if err := d.register(ctx, h); err != nil {
			return err
		}
	}
	for _, h := range d.fleet.Hosts() {
		if err := d.untilPrepared(ctx, h); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.out, "\nRestarting cluster %s, one host after another.\n", cluster)
	return d.restart(ctx)
}

func (d *Demo) register(ctx context.Context, h *remotetest.Host) error {
	r, err := insist(ctx, func(ctx context.Context) (*apiclient.PutHostResponse, error) {
		return d.api.PutHostWithResponse(ctx, h.Address(), apiclient.HostPut{
			Cluster:    cluster,
			Port:       h.Port(),
			RemoteUser: h.User(),
			SshPrivKey: base64.StdEncoding.EncodeToString([]byte(d.fleet.ClientKey())),
		})
	})
	if err := check("put host "+h.Address(), r, err, http.StatusCreated); err != nil {
		return err
	}
	if r.JSON201.Status != apiclient.HostState(fleet.HostFailed) {
		return nil
	}
	again, err := insist(ctx, func(ctx context.Context) (*apiclient.BootstrapHostResponse, error) {
		return d.api.BootstrapHostWithResponse(ctx, h.Address(), apiclient.IgnoredBody{})
	})
	return check("bootstrap host "+h.Address(), again, err, http.StatusCreated, http.StatusOK)
}

func (d *Demo) untilPrepared(ctx context.Context, h *remotetest.Host) error {
	ctx, cancel := context.WithTimeout(ctx, bootstrapTimeout)
	defer cancel()
	for {
		r, err := d.api.GetHostWithResponse(ctx, h.Address())
		if err := check("get host "+h.Address(), r, err, http.StatusOK); err != nil {
			return err
		}
		switch host := r.JSON200; fleet.HostState(host.Status) {
		case fleet.HostActive, fleet.HostDisassociated:
			fmt.Fprintf(d.out, "  %-5s %-16s %s %s\n", h.Name(), h.Address(), host.Os, host.OsVersion)
			return nil
		case fleet.HostFailed:
			return fmt.Errorf("host %s could not be bootstrapped: %s", h.Address(), host.Reason)
		}
		if err := wait(ctx); err != nil {
			return fmt.Errorf("bootstrap of host %s: %w", h.Address(), err)
		}
	}
}

// answer is any answer of the generated client.
type answer interface {
	StatusCode() int
	Status() string
	GetBody() []byte
}

// check makes an error of an answer that is not one of those wanted.
func check(what string, r answer, err error, want ...int) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, status := range want {
		if r.StatusCode() == status {
			return nil
		}
	}
	return fmt.Errorf("%s: %s: %s", what, r.Status(), r.GetBody())
}

// insist repeats a request while the server says that it can do nothing now, as Temporal on
// a busy machine is late with its answer.
func insist[A answer](ctx context.Context, ask func(context.Context) (A, error)) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, bootstrapTimeout)
	defer cancel()
	for {
		r, err := ask(ctx)
		if err != nil || r.StatusCode() != http.StatusServiceUnavailable || wait(ctx) != nil {
			return r, err
		}
	}
}

func wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pollInterval):
		return nil
	}
}

// Addresses tells where everything is, and how to use it.
func Addresses(out io.Writer, s *stack.Stack) {
	fmt.Fprintf(out, `
  API          %[1]s/api/v0/
  API docs     %[1]s/docs
  Temporal UI  %[2]s
  try          export COMMCTL_CONFIG=%[4]s; bin/commctl host list
  or           curl --netrc-file %[3]s %[1]s/api/v0/hosts

`, s.URL, s.TemporalUI(), shellQuote(s.Netrc), shellQuote(s.Commctl))
}

// shellQuote makes a path one word of a POSIX shell.
func shellQuote(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("/._-+", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
