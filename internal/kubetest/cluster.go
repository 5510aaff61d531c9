package kubetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	startTimeout = 5 * time.Minute
	etcdPort     = "2379"
	peerPort     = "2380"
	apiPort      = "6443"
	adminGroup   = "system:masters"
	// Enough for tests that make hundreds of nodes.
	adminQPS, adminBurst = 500, 1000
)

// Cluster is a running control plane. Its methods may be called in parallel, but
// for those that stop and start parts of it.
type Cluster struct {
	dir     string
	binDir  string
	ip      string
	ca      *authority
	admin   kubernetes.Interface
	watcher *os.File // held open while we live: see removeAfterUs

	mu        sync.Mutex // guards apiserver and others
	apiserver *process   // nil while it is stopped
	others    []*process
}

// Start runs a control plane in a new folder. ctx bounds the start, not the life
// of it, and never for longer than five minutes.
func Start(ctx context.Context) (*Cluster, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c := &Cluster{}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("test control plane: %w", err), c.Close())
	}
	return c, nil
}

// URL is where the apiserver is.
func (c *Cluster) URL() string { return "https://" + net.JoinHostPort(c.ip, apiPort) }

// CAFile is the certificate of the authority that signs for the apiserver.
func (c *Cluster) CAFile() string { return filepath.Join(c.dir, "ca.crt") }

// Kubeconfig is a file that gives every right.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "admin.kubeconfig") }

// Admin is a client with every right.
func (c *Cluster) Admin() kubernetes.Interface { return c.admin }

// ClientCertificate makes files of a client certificate for a user in groups.
func (c *Cluster) ClientCertificate(user string, groups ...string) (certFile, keyFile string, err error) {
	p, err := c.ca.client(user, groups...)
	if err != nil {
		return "", "", err
	}
	return p.write(filepath.Join(c.dir, "client-"+user))
}

// Close ends all processes and removes the folder.
func (c *Cluster) Close() error {
	errs := []error{c.StopAPIServer(syscall.SIGKILL)}
	for _, p := range c.others {
		errs = append(errs, p.stop(syscall.SIGKILL)) // nothing of it is kept
	}
	c.others = nil
	if c.watcher != nil {
		errs = append(errs, c.watcher.Close())
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// StopAPIServer ends the apiserver: SIGTERM lets it finish what runs, SIGKILL
// does not. Everything it knew is in etcd. It does nothing when it is stopped.
func (c *Cluster) StopAPIServer(sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.apiserver == nil {
		return nil
	}
	err := c.apiserver.stop(sig)
	c.apiserver = nil
	return err
}

// StartAPIServer starts it again and returns when it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.apiserver != nil {
		return errors.New("the apiserver runs already")
	}
	p, err := spawn(c.dir, c.binDir, apiServer, c.apiServerArguments()...)
	if err != nil {
		return err
	}
	c.apiserver = p
	return until(ctx, p.alive, c.ready)
}

func (c *Cluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.admin.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

func (c *Cluster) start(ctx context.Context) (err error) {
	if c.binDir, err = BinDir(); err != nil {
		return err
	}
	if c.dir, err = os.MkdirTemp("", "kubetest"); err != nil {
		return err
	}
	if c.watcher, err = removeAfterUs(c.dir); err != nil {
		return err
	}
	if c.ip, err = freeAddress(); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	if err := c.run(etcd, c.etcdArguments()...); err != nil {
		return err
	}
	if err := c.StartAPIServer(ctx); err != nil {
		return err
	}
	kubeconfig := "--kubeconfig=" + c.Kubeconfig()
	if err := c.run(controllerManager, kubeconfig, "--leader-elect=false", "--secure-port=0",
		// Tests say themselves which kubelets are lost. KWOK's are silent for most of a
		// minute after an apiserver was away.
		"--node-monitor-grace-period=10m",
		// No garbage collector, so that tests may name owners that are not there.
		"--controllers=disruption-controller,node-lifecycle-controller,pod-garbage-collector-controller,namespace-controller,replicaset-controller,daemonset-controller"); err != nil {
		return err
	}
	if err := c.run(scheduler, kubeconfig, "--leader-elect=false", "--secure-port=0"); err != nil {
		return err
	}
	if err := c.run(kwok, kubeconfig, "--config="+filepath.Join(c.binDir, stagesFile),
		"--manage-all-nodes=false", "--manage-nodes-with-label-selector="+played+"="+yes,
		"--disregard-status-with-annotation-selector="+dead+"="+yes,
		"--node-ip="+c.ip, "--node-lease-duration-seconds=40"); err != nil {
		return err
	}
	// The default namespace comes a moment after readiness.
	return until(ctx, c.alive, func(ctx context.Context) error {
		_, err := c.admin.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		return err
	})
}

func (c *Cluster) run(name string, args ...string) error {
	p, err := spawn(c.dir, c.binDir, name, args...)
	if err == nil {
		c.others = append(c.others, p)
	}
	return err
}

// alive says which part has ended, if one has.
func (c *Cluster) alive() error {
	for _, p := range c.others {
		if err := p.alive(); err != nil {
			return err
		}
	}
	return nil
}

// prepare writes certificates, keys and the administrator's kubeconfig.
func (c *Cluster) prepare() (err error) {
	if c.ca, err = newAuthority(); err != nil {
		return err
	}
	if err := os.WriteFile(c.CAFile(), c.ca.pem, 0o600); err != nil {
		return err
	}
	server, err := c.ca.server(net.ParseIP(c.ip))
	if err != nil {
		return err
	}
	if _, _, err := server.write(filepath.Join(c.dir, "apiserver")); err != nil {
		return err
	}
	accounts, err := c.ca.client("service-accounts") // only its keys are used
	if err != nil {
		return err
	}
	if _, _, err := accounts.write(filepath.Join(c.dir, "accounts")); err != nil {
		return err
	}
	admin, err := c.ca.client("kubetest-admin", adminGroup)
	if err != nil {
		return err
	}
	const name = "kubetest"
	config := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: c.URL(), CertificateAuthorityData: c.ca.pem}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {ClientCertificateData: admin.cert, ClientKeyData: admin.key}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}
	if err := clientcmd.WriteToFile(config, c.Kubeconfig()); err != nil {
		return err
	}
	c.admin, err = kubernetes.NewForConfig(&rest.Config{
		Host: c.URL(), QPS: adminQPS, Burst: adminBurst,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.pem, CertData: admin.cert, KeyData: admin.key},
	})
	return err
}

func (c *Cluster) etcdArguments() []string {
	client, peer := "http://"+net.JoinHostPort(c.ip, etcdPort), "http://"+net.JoinHostPort(c.ip, peerPort)
	return []string{
		"--data-dir=" + filepath.Join(c.dir, etcd), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
	}
}

func (c *Cluster) apiServerArguments() []string {
	file := func(name string) string { return filepath.Join(c.dir, name) }
	return []string{
		"--etcd-servers=http://" + net.JoinHostPort(c.ip, etcdPort),
		"--bind-address=" + c.ip, "--advertise-address=" + c.ip, "--secure-port=" + apiPort,
		// A loopback address may not be an endpoint of the service "kubernetes".
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/24",
		"--tls-cert-file=" + file("apiserver.crt"), "--tls-private-key-file=" + file("apiserver.key"),
		"--client-ca-file=" + c.CAFile(),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + file("accounts.crt"), "--service-account-signing-key-file=" + file("accounts.key"),
		"--authorization-mode=Node,RBAC",
		// Pods need no token of their own here, and no account for it.
		"--disable-admission-plugins=ServiceAccount",
		"--profiling=false",
		// Else a stop waits a minute for watches to end.
		"--shutdown-send-retry-after",
	}
}

// freeAddress gives a loopback address on which nothing listens. All of
// 127.0.0.0/8 is local on Linux, so that starts need not know of each other.
func freeAddress() (string, error) {
	var last error
	for range 20 {
		ip := fmt.Sprintf("127.%d.%d.%d", 130+rand.IntN(60), rand.IntN(256), 1+rand.IntN(254))
		if last = bindable(ip); last == nil {
			return ip, nil
		}
	}
	return "", last
}

func bindable(ip string) error {
	for _, port := range []string{etcdPort, peerPort, apiPort} {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, port))
		if err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}
