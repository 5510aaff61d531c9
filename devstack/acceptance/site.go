package acceptance

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"commissaire/devstack/harness"
	"commissaire/internal/privatepg"
	"commissaire/internal/remote/nspawntest"
)

// limit is how long an operation may take: far more than it needs, since the
// machine may be busy.
const limit = 3 * time.Minute

// site is an installation whose worker runs in the network of the machines, which
// nothing else can reach.
type site struct {
	*harness.Installation
	machines   *nspawntest.Machines
	repository *nspawntest.Repository
	binary     string // commissaire
	key        string // lets the product log in

	mu     sync.Mutex
	worker *exec.Cmd
}

func newSite(ctx context.Context, o Options, pg *privatepg.Server, temporal string) (_ *site, err error) {
	s := &site{binary: o.Binary}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	authorized, err := s.newKey()
	if err != nil {
		return nil, err
	}
	machines := nspawntest.Options{Count: o.APT + o.DNF + o.Images, Images: o.Images, AuthorizedKey: authorized}
	for range o.APT {
		machines.Files = append(machines.Files, map[string]string{"etc/apt/apt.conf.d/90ledger": aptHook})
	}
	for range o.DNF {
		machines.Files = append(machines.Files, map[string]string{"etc/os-release": fedora})
	}
	if o.DNF+o.Images > 0 {
		machines.Packages = slices.Concat(nspawntest.RPMPackages, nspawntest.ImagePackages)
	}
	if s.machines, err = nspawntest.Open(ctx, machines); err != nil {
		return nil, err
	}
	if s.repository, err = s.machines.Repository(); err != nil {
		return nil, err
	}
	if err := s.machines.Expose(temporal); err != nil {
		return nil, err
	}
	s.Installation, err = harness.New(ctx, harness.Options{
		Dir: o.Dir, Name: "acceptance", Binary: o.Binary, Postgres: pg, Temporal: temporal,
		Env: []string{"COMMISSAIRE_BOOTSTRAP_PROFILE=container-host", "COMMISSAIRE_REGISTRY_MIRROR=http://192.0.2.1:5000", "COMMISSAIRE_STEP_TIMEOUT=" + limit.String(), "COMMISSAIRE_REBOOT_TIMEOUT=" + limit.String()},
	})
	if err != nil {
		return nil, err
	}
	return s, s.startWorker(ctx)
}

func (s *site) close() error {
	s.killWorker()
	if s.Installation != nil {
		s.Installation.Close()
	}
	if s.machines != nil {
		return s.machines.Close()
	}
	return nil
}

// newKey makes the key of the product and gives its line for authorized_keys.
func (s *site) newKey() (string, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return "", err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return "", err
	}
	s.key = base64.StdEncoding.EncodeToString(pem.EncodeToMemory(block))
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), nil
}

func (s *site) startWorker(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worker = s.machines.Command(ctx, s.binary, "worker")
	s.worker.Env = s.Environment()
	s.worker.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return s.Launch(s.worker, "worker")
}

// killWorker ends the worker at once, by SIGKILL, and gives its process id.
func (s *site) killWorker() (pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.worker == nil || s.worker.Process == nil {
		return 0
	}
	harness.Kill(s.worker)
	return s.worker.Process.Pid
}

// operation is one as far as it matters here.
type operation struct{ ID, State, Reason string }

func (o operation) ended() bool { return o.State != "pending" && o.State != "running" }

// step is one step of one host.
type step struct{ Address, Name, State, Reason string }

func (s *site) get(ctx context.Context, path string, into any) error {
	r, err := s.Request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if r.Code != http.StatusOK {
		return fmt.Errorf("GET %s: %d: %s", path, r.Code, r.Body)
	}
	return json.Unmarshal(r.Body, into)
}

// latest is the newest operation that fits a filter such as "cluster=web".
func (s *site) latest(ctx context.Context, filter string) (operation, error) {
	var page struct{ Operations []operation }
	if err := s.get(ctx, "operations?limit=1&"+filter, &page); err != nil {
		return operation{}, err
	}
	if len(page.Operations) == 0 {
		return operation{}, fmt.Errorf("no operation fits %s", filter)
	}
	return page.Operations[0], nil
}

// steps are those of an operation, by host and in order.
func (s *site) steps(ctx context.Context, op operation) (map[string][]step, error) {
	var page struct{ Steps []step }
	err := s.get(ctx, "operations/"+op.ID+"/steps", &page)
	by := map[string][]step{}
	for _, step := range page.Steps {
		by[step.Address] = append(by[step.Address], step)
	}
	return by, err
}

// order begins an operation on all hosts of a cluster, all at once.
func (s *site) order(ctx context.Context, kind, cluster string, members map[string]any) (operation, error) {
	body := map[string]any{"policy": map[string]any{"max_unavailable": "100%"}}
	for name, value := range members {
		body[name] = value
	}
	if err := s.Call(ctx, http.MethodPut, "cluster/"+cluster+"/"+kind, body); err != nil {
		return operation{}, err
	}
	return s.latest(ctx, "kind="+kind+"&cluster="+cluster)
}

// end waits for the good end of an operation.
func (s *site) end(ctx context.Context, op operation) error {
	err := harness.Until(ctx, limit, "the end of operation "+op.ID, func() (bool, error) {
		err := s.get(ctx, "operations/"+op.ID, &op)
		return op.ended(), err
	})
	if err == nil && op.State != "succeeded" {
		err = fmt.Errorf("operation %s ended as %s: %s", op.ID, op.State, op.Reason)
	}
	return err
}

func (s *site) carryOut(ctx context.Context, kind, cluster string, members map[string]any) error {
	op, err := s.order(ctx, kind, cluster, members)
	if err != nil {
		return err
	}
	if err := s.end(ctx, op); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	return nil
}

// register makes the cluster of a group and adds its machines, which bootstraps
// them; it waits until that has ended well.
func (s *site) register(ctx context.Context, g group) error {
	if err := s.Call(ctx, http.MethodPut, "cluster/"+g.cluster, map[string]any{}); err != nil {
		return err
	}
	for _, m := range g.machines {
		if err := s.Call(ctx, http.MethodPut, "host/"+m.Address(), map[string]any{"ssh_priv_key": s.key, "remote_user": "root", "cluster": g.cluster}); err != nil {
			return err
		}
	}
	_, err := s.bootstrapped(ctx, g)
	return err
}

// bootstrapAgain gives what the steps of each machine said of themselves.
func (s *site) bootstrapAgain(ctx context.Context, g group) (map[string][]step, error) {
	for _, m := range g.machines {
		if err := s.Call(ctx, http.MethodPut, "host/"+m.Address()+"/bootstrap", nil); err != nil {
			return nil, err
		}
	}
	return s.bootstrapped(ctx, g)
}

func (s *site) bootstrapped(ctx context.Context, g group) (map[string][]step, error) {
	said := map[string][]step{}
	for _, m := range g.machines {
		op, err := s.latest(ctx, "kind=bootstrap&host="+m.Address())
		if err != nil {
			return nil, err
		}
		if err := s.end(ctx, op); err != nil {
			return nil, fmt.Errorf("bootstrap of %s: %w", m.Name(), err)
		}
		steps, err := s.steps(ctx, op)
		if err != nil {
			return nil, err
		}
		said[m.Name()] = steps[m.Address()]
	}
	return said, nil
}

// reasons are what these steps said of themselves.
func reasons(steps []step, names ...string) string {
	var all []string
	for _, s := range steps {
		if slices.Contains(names, s.Name) && s.Reason != "" {
			all = append(all, s.Reason)
		}
	}
	return strings.Join(all, "; ")
}
