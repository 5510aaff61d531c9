package nspawntest_test
import ("testing";"time";"commissaire/internal/remote/nspawntest")
func TestZZ(t *testing.T){ for range 2 { b:=time.Now(); d,err:=nspawntest.Base(t.Context(),"/tmp/tmp.zcxzqSMbZ6"); t.Log(d,err,time.Since(b)) } }
