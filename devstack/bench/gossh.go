package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// goClient runs the command with golang.org/x/crypto/ssh and nothing else: what is left
// when there is no tool at all.
type goClient struct {
	site    site
	configs []*ssh.ClientConfig
	conns   []*ssh.Client // nil where there is none
}

func newGoClient(s site) (*goClient, error) {
	key, err := ssh.ParsePrivateKey([]byte(s.Key))
	if err != nil {
		return nil, err
	}
	c := &goClient{site: s, conns: make([]*ssh.Client, len(s.Hosts))}
	for _, h := range s.Hosts {
		pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(h.HostKey))
		if err != nil {
			return nil, err
		}
		c.configs = append(c.configs, &ssh.ClientConfig{
			User: h.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(pinned),
			HostKeyAlgorithms: []string{pinned.Type()},
		})
	}
	return c, nil
}

// run gives how long it took until the last host had answered, and what this process used
// of processors meanwhile. It goes over the connections that there are; those that it
// makes are closed within that time, unless they are to be kept.
func (c *goClient) run(ctx context.Context, answer string, keep bool) (wall, used time.Duration, err error) {
	before, err := selfUsage()
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	errs := make([]error, len(c.site.Hosts))
	var all sync.WaitGroup
	for i := range c.site.Hosts {
		all.Go(func() {
			out, err := c.one(ctx, i)
			if err == nil && strings.TrimSpace(out) != answer {
				err = fmt.Errorf("answered %q", out)
			}
			if !keep {
				err = errors.Join(err, c.hangUp(i))
			}
			errs[i] = err
		})
	}
	all.Wait()
	wall = time.Since(begin)
	after, err := selfUsage()
	return wall, after - before, errors.Join(append(errs, err)...)
}

func (c *goClient) one(ctx context.Context, i int) (string, error) {
	if c.conns[i] == nil {
		h := c.site.Hosts[i]
		address := net.JoinHostPort(h.Address, strconv.Itoa(h.Port))
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return "", err
		}
		if err := raw.SetDeadline(time.Now().Add(rivalLimit)); err != nil {
			return "", errors.Join(err, raw.Close())
		}
		conn, channels, requests, err := ssh.NewClientConn(raw, address, c.configs[i])
		if err != nil {
			return "", errors.Join(err, raw.Close())
		}
		c.conns[i] = ssh.NewClient(conn, channels, requests)
	}
	session, err := c.conns[i].NewSession()
	if err != nil {
		return "", err
	}
	defer session.Close()
	out, err := session.Output(strings.Join(remoteCommand, " "))
	return string(out), err
}

func (c *goClient) hangUp(i int) error {
	if c.conns[i] == nil {
		return nil
	}
	err := c.conns[i].Close()
	c.conns[i] = nil
	return err
}

// close ends the connections.
func (c *goClient) close() {
	for i := range c.conns {
		_ = c.hangUp(i) // nothing comes after it
	}
}
