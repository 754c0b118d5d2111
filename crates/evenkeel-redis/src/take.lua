-- Takes up to ARGV[3] requests out of the bucket at KEYS[1]: one is refilled every ARGV[1]
-- microseconds, ARGV[2] of them fill it. The bucket is kept as the time at which it is full again.
-- Time is the server's, counted from 2020, so that a double holds fractions of a microsecond.
local interval, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = (time[1] - 1577836800) * 1000000 + time[2]
local text = redis.call('GET', KEYS[1])
-- What this script did not write is no bucket; Lua would read '0x10' and '1e5', too.
local full_at = text and text:match('^%d+%.%d%d%d$') and tonumber(text) or now
local window = burst * interval
-- Neither a clock that went back nor a rate that has changed leaves more than a whole bucket missing.
local missing = math.min(math.max(full_at - now, 0), window)
local room = math.floor((window - missing) / interval + 0.000001)
local tokens = math.min(wanted, room)
if tokens > 0 then
    missing = missing + tokens * interval
    redis.call('SET', KEYS[1], string.format('%.3f', now + missing),
        'PX', math.ceil(missing / 1000) + 1)
end
local retry_after = 0
if room == 0 then
    retry_after = math.ceil(interval - (window - missing))
end
return {tokens, room - tokens, retry_after}
