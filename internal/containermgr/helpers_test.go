package containermgr_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), kubetest.TestTimeout)
	t.Cleanup(cancel)
	return ctx
}

// accounts gives each control plane one account with exactly the rights of Rules.
var accounts sync.Map // *kubetest.Cluster → func() (*kubetest.Account, error)

func accountOf(t *testing.T, c *kubetest.Cluster) *kubetest.Account {
	t.Helper()
	get, _ := accounts.LoadOrStore(c, sync.OnceValues(func() (*kubetest.Account, error) {
		return c.AddAccount(context.Background(), "commissaire", containermgr.Rules()...)
	}))
	account, err := get.(func() (*kubetest.Account, error))()
	require.NoError(t, err)
	return account
}

// byToken gives the options of an account's token.
func byToken(t *testing.T, c *kubetest.Cluster, account *kubetest.Account) map[string]any {
	t.Helper()
	token, err := account.Token(t.Context())
	require.NoError(t, err)
	return map[string]any{"server_url": c.URL(), "token": token, "certificate_ca_path": c.CAFile()}
}

func newManager(t *testing.T, options map[string]any) *containermgr.Kubernetes {
	t.Helper()
	k, err := containermgr.New(fleet.ContainerManager{Name: "test", Type: fleet.ContainerManagerKubernetes, Options: options})
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k
}

// managerOf logs in to c by a token with exactly the rights of Rules. It is connected.
func managerOf(t *testing.T, c *kubetest.Cluster) *containermgr.Kubernetes {
	t.Helper()
	k := newManager(t, byToken(t, c, accountOf(t, c)))
	require.NoError(t, answered(func() error { _, err := k.Registered(t.Context(), "none"); return err }))
	return k
}

// answered asks again when there was no answer in time: on a busy machine a TLS handshake
// may last longer than we wait for one.
func answered(ask func() error) error {
	for tries := 1; ; tries++ {
		err := ask()
		var of *url.Error
		if tries == 10 || !errors.As(err, &of) || !of.Timeout() {
			return err
		}
	}
}

// standing is for an owner whose turn is not over.
func standing(context.Context) error { return nil }

var nodes atomic.Int64

// nodeName gives a name that no other test uses.
func nodeName() string { return fmt.Sprintf("10.9.%d.%d", os.Getpid()%250, nodes.Add(1)) }

// space is a namespace with a node, both of one test.
type space struct {
	*kubetest.Cluster
	ctx       context.Context
	t         *testing.T
	k         *containermgr.Kubernetes
	namespace string
	node      string
}

func newSpace(t *testing.T, c *kubetest.Cluster) *space {
	t.Helper()
	s := &space{Cluster: c, ctx: testContext(t), t: t, k: managerOf(t, c), node: nodeName()}
	s.namespace = strings.ReplaceAll("space-"+s.node, ".", "-")
	require.NoError(t, c.AddNamespace(s.ctx, s.namespace))
	require.NoError(t, c.AddNode(s.ctx, s.node))
	return s
}

func (s *space) remove() {
	s.t.Helper()
	left, err := s.k.Remove(s.ctx, s.node, time.Now())
	require.NoError(s.t, err)
	require.False(s.t, left)
}
