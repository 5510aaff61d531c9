package activities

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"commissaire/internal/containermgr"
	"commissaire/internal/containermgr/options"
	"commissaire/internal/fleet"
)

// clientAge is how long a client is given to steps: its certificates may be files,
// which somebody may have replaced since.
const clientAge = time.Minute

// clients shares one client, and its connections, among the steps that ask the same
// container manager: hundreds of drains ask it every second. The zero value is ready.
type clients struct {
	mu     sync.Mutex
	shared map[string]*client
}

// client is one container manager as steps use it.
type client struct {
	*containermgr.Kubernetes
	wants options.Options
	users int
	old   bool // nobody else gets it
	aging *time.Timer
}

// get gives the client of a container manager until release. A user should be told its
// warnings once for each client.
func (c *clients) get(ctx context.Context, tenant string, m fleet.ContainerManager) (k *client, release func(), err error) {
	given, err := json.Marshal(m.Options)
	if err != nil {
		return nil, nil, err
	}
	// The digest, since options are secret and keys of a map are not.
	key := fmt.Sprintf("%s/%s/%s/%x", tenant, m.Name, m.Type, sha256.Sum256(given))
	if k = c.join(key, nil); k == nil {
		// Others do not wait for this: it reads files, which may hang.
		made, err := open(m)
		if err != nil {
			return nil, nil, err
		}
		if k = c.join(key, made); k == made {
			k.warn(ctx, m)
		} else {
			made.Close() // somebody else was faster
		}
	}
	return k, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if k.users--; k.users == 0 && k.old {
			k.Close()
		}
	}, nil
}

// join gives one more user the client of that key, which is made if there is none yet;
// nil when there is neither.
func (c *clients) join(key string, made *client) *client {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.shared[key]
	switch {
	case k == nil && made == nil:
		return nil
	case k == nil:
		if c.shared == nil {
			c.shared = map[string]*client{}
		}
		k, c.shared[key] = made, made
		k.aging = time.AfterFunc(clientAge, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.retire(key, k)
		})
	}
	k.users++
	return k
}

// retire takes a client out. Who has it may use it to the end.
func (c *clients) retire(key string, k *client) {
	if c.shared[key] == k {
		delete(c.shared, key)
	}
	if k.old = true; k.users == 0 {
		k.Close()
	}
}

// close retires all clients.
func (c *clients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, k := range c.shared {
		k.aging.Stop()
		c.retire(key, k)
	}
}

// open makes a client of its own.
func open(m fleet.ContainerManager) (*client, error) {
	wants, err := options.Parse(m.Options)
	if err != nil {
		return nil, err
	}
	k, err := containermgr.New(m)
	if err != nil {
		return nil, err
	}
	return &client{Kubernetes: k, wants: wants}, nil
}

// warn says what its user should know.
func (k *client) warn(ctx context.Context, m fleet.ContainerManager) {
	for _, warning := range k.Warnings() {
		activity.GetLogger(ctx).Warn(warning, "container_manager", m.Name)
	}
}
