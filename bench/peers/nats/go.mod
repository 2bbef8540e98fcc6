module highwater/bench/peers/nats

go 1.22
