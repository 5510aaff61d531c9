package temporal

import (
	"time"

	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"

	"commissaire/devstack/loopback"
)

// historyShards cannot change in the life of a database. One shard handles at
// most 20 tasks a second by default; four are enough for one machine.
const historyShards = 4

const (
	clusterName     = "active"
	defaultStore    = "default"
	visibilityStore = "visibility"
	disabled        = "disabled"
)

func makeConfig(p ports, stores map[string]config.DataStore) *config.Config {
	c := new(config.Config)
	c.Global.Membership.MaxJoinDuration = 30 * time.Second
	c.Global.Membership.BroadcastAddress = loopback.IP
	c.Persistence = config.Persistence{
		NumHistoryShards: historyShards,
		DefaultStore:     defaultStore,
		VisibilityStore:  visibilityStore,
		DataStores:       stores,
	}
	c.ClusterMetadata = &cluster.Config{
		FailoverVersionIncrement: 10,
		MasterClusterName:        clusterName,
		CurrentClusterName:       clusterName,
		ClusterInformation: map[string]cluster.ClusterInformation{
			clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: loopback.Address(p.frontend)},
		},
	}
	c.DCRedirectionPolicy.Policy = "noop"
	c.Archival.History.State, c.Archival.Visibility.State = disabled, disabled
	c.NamespaceDefaults.Archival.History.State, c.NamespaceDefaults.Archival.Visibility.State = disabled, disabled
	c.PublicClient.HostPort = loopback.Address(p.frontend)
	c.Services = map[string]config.Service{}
	for name, port := range p.services() {
		var s config.Service
		s.RPC.GRPCPort, s.RPC.BindOnIP = port, loopback.IP
		c.Services[string(name)] = s
	}
	return c
}

// How often each of the four services reads all namespaces. While a namespace is made
// it is to be used at once instead of seconds later; then there is nothing to find.
const (
	namespacesSoon   = 500 * time.Millisecond
	namespacesAtRest = 10 * time.Second
)

// dynamicConfig changes what the server would do too slowly, or too often, on one
// machine. The keys are typed, since an unknown name is no error to the server.
func dynamicConfig(longHistory map[string]int) *dynamicconfig.MemoryClient {
	c := dynamicconfig.NewMemoryClient()
	var long []dynamicconfig.ConstrainedValue
	for namespace, events := range longHistory {
		long = append(long, dynamicconfig.ConstrainedValue{Constraints: dynamicconfig.Constraints{Namespace: namespace}, Value: events})
	}
	for key, value := range map[dynamicconfig.Key]any{
		// 20 a shard by default, which makes every workflow task wait up to 50 ms.
		dynamicconfig.TransferProcessorMaxPollRPS.Key(): 1000,
		// A new search attribute can be used at once instead of a minute later.
		dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key(): true,
		dynamicconfig.NamespaceCacheRefreshInterval.Key():           namespacesSoon,
		// The default of 10 a second is less than a page of the web UI asks for.
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 100,
		// The default cache is for a server with a machine of its own.
		dynamicconfig.HistoryCacheHostLevelMaxSize.Key(): 8192,
		// Four parts of each task queue by default, of which each is kept up and written
		// down every minute, also for the queues that the server has for itself.
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
		dynamicconfig.HistoryCountSuggestContinueAsNew.Key():    long,
	} {
		c.OverrideValue(key, value)
	}
	return c
}
