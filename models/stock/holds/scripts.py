"""Holds in Redis: one Lua script for each operation, which Redis runs alone from beginning to end.

All keys begin with KEYS[1], whose {hash tag} keeps them in one slot of a cluster:

    <base>:free:<location>             hash    sku -> "<free units> <version>"
    <base>:open:<location> 0x1f <sku>  sorted  "<units> <hold id>" by when it expires: what is held there, until then
    <base>:hold:<hold id>              hash    the hold; its lines are JSON: [[location, sku, units, settled, open], ...]
    <base>:keys                        hash    key -> hold id
    <base>:expiry                      sorted  hold ids that nothing ended yet, by when they expire
    <base>:ended                       sorted  hold ids that ended, by when
    <base>:settled:<location> 0x1f <sku>  hash  version -> units of orders that the position has not heard of yet

ARGV[1] is the time, microseconds. Numbers are doubles: whole up to 2^53.
"""

VERSION = "1"  # of this layout

_COMMON = """
local base, now, call = KEYS[1], ARGV[1], redis.call

local function whole(number) return string.format('%.0f', number) end

local function of_position(kind, location, sku) return base .. ':' .. kind .. ':' .. location .. '\\31' .. sku end

local function free_of(location, sku)
  local packed = call('HGET', base .. ':free:' .. location, sku)
  if not packed then return nil end
  local units, version = string.match(packed, '^(%S+) (%S+)$')
  return tonumber(units), tonumber(version)
end

local function set_free(location, sku, units, version)
  call('HSET', base .. ':free:' .. location, sku, whole(units) .. ' ' .. whole(version))
end

local function levels_of(lines)
  local levels, enough = {}, true
  for i, line in ipairs(lines) do
    local free = free_of(line[1], line[2])
    levels[i] = false
    if free then
      local held = 0
      for _, member in ipairs(call('ZRANGEBYSCORE', of_position('open', line[1], line[2]), '(' .. now, '+inf')) do
        held = held + tonumber(string.match(member, '^%d+'))
      end
      levels[i] = {free, held}
      enough = enough and line[3] <= math.max(0, free - held)
    end
    enough = enough and levels[i]
  end
  return levels, enough
end

local function read(id)
  local found = call('HMGET', base .. ':hold:' .. id, 'key', 'request', 'made_at', 'expires_at', 'outcome', 'ended_at', 'lines')
  if not found[1] then return nil end
  return {id = id, key = found[1], request = found[2], made_at = found[3], expires_at = found[4],
          outcome = found[5], ended_at = found[6], lines = cjson.decode(found[7])}
end

local function told(hold)
  return {hold.id, hold.key, hold.request, hold.made_at, hold.expires_at, hold.outcome, hold.ended_at, cjson.encode(hold.lines)}
end

local function state_of(hold)
  if hold.outcome ~= '' then return hold.outcome end
  return tonumber(hold.expires_at) > tonumber(now) and 'held' or 'expired'
end

-- a line keeps so many units from others until the hold expires
local function open(hold, line, units)
  local place = of_position('open', line[1], line[2])
  if line[5] > 0 then call('ZREM', place, whole(line[5]) .. ' ' .. hold.id) end
  if units > 0 then call('ZADD', place, hold.expires_at, whole(units) .. ' ' .. hold.id) end
  line[5] = units
end

local function save(hold, outcome, ended_at)
  hold.outcome, hold.ended_at = outcome, ended_at
  call('HSET', base .. ':hold:' .. hold.id, 'key', hold.key, 'request', hold.request, 'made_at', hold.made_at,
       'expires_at', hold.expires_at, 'outcome', outcome, 'ended_at', ended_at, 'lines', cjson.encode(hold.lines))
  if outcome == '' then
    call('ZADD', base .. ':expiry', hold.expires_at, hold.id)
    call('ZREM', base .. ':ended', hold.id)
  else
    call('ZREM', base .. ':expiry', hold.id)
    call('ZADD', base .. ':ended', ended_at, hold.id)
  end
end

local function shut(hold)
  for _, line in ipairs(hold.lines) do open(hold, line, 0) end
end

local function expire(id)
  local hold = read(id)
  shut(hold)
  if hold.outcome == '' then save(hold, 'expired', hold.expires_at) else save(hold, hold.outcome, hold.ended_at) end
end

-- who grants units ends the expired holds of their positions for good
local function count_out(lines)
  for _, line in ipairs(lines) do
    for _, member in ipairs(call('ZRANGEBYSCORE', of_position('open', line[1], line[2]), '-inf', now)) do
      expire(string.match(member, '^%d+ (.+)$'))
    end
  end
end
"""

_BODIES = {
    "set_free": """
local version = tonumber(ARGV[2])
for _, row in ipairs(cjson.decode(ARGV[3])) do
  local _, heard = free_of(row[1], row[2])
  if not heard or heard <= version then
    local units, place = row[3], of_position('settled', row[1], row[2])
    local pending = call('HGETALL', place)
    for i = 1, #pending, 2 do
      if tonumber(pending[i]) > version then units = units - tonumber(pending[i + 1]) else call('HDEL', place, pending[i]) end
    end
    set_free(row[1], row[2], units, version)
  end
end
""",
    "hold": """
local id, key, request, expires_at, lines = ARGV[2], ARGV[3], ARGV[4], ARGV[5], cjson.decode(ARGV[6])
local known = call('HGET', base .. ':keys', key)
if known then
  local hold = read(known)
  if hold.request == request then return {'kept', told(hold)} end
  return {'key_reused'}
end
local levels, enough = levels_of(lines)
if not enough then return {'lacking', levels} end
count_out(lines)
local hold = {id = id, key = key, request = request, made_at = now, expires_at = expires_at, lines = {}}
for i, line in ipairs(lines) do
  hold.lines[i] = {line[1], line[2], line[3], 0, 0}
  open(hold, hold.lines[i], line[3])
end
call('HSET', base .. ':keys', key, id)
save(hold, '', '')
return {'kept', told(hold)}
""",
    "extend": """
local hold, wanted, lasting = read(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not hold then return {'unknown_hold'} end
if hold.outcome == 'released' or hold.outcome == 'settled' then return {hold.outcome} end
if wanted > tonumber(hold.made_at) + lasting then return {'too_long'} end
if state_of(hold) == 'held' then
  if wanted <= tonumber(hold.expires_at) then return {'kept', told(hold)} end
else
  local lines = {}
  for i, line in ipairs(hold.lines) do lines[i] = {line[1], line[2], line[3] - line[4]} end
  local levels, enough = levels_of(lines)
  if not enough or wanted <= tonumber(now) then return {'expired', told(hold), levels} end
  shut(hold)
  count_out(lines)
end
hold.expires_at = ARGV[3]
for _, line in ipairs(hold.lines) do open(hold, line, line[3] - line[4]) end
save(hold, '', '')
return {'kept', told(hold)}
""",
    "release": """
local hold = read(ARGV[2])
if not hold then return {'unknown_hold'} end
if hold.outcome ~= 'released' and hold.outcome ~= 'settled' then
  shut(hold)
  save(hold, 'released', now)
end
return {'kept', told(hold)}
""",
    "settle": """
local hold, version, said = read(ARGV[2]), tonumber(ARGV[3]), cjson.decode(ARGV[4])
if not hold then return {'unknown_hold'} end
local was, of, more = state_of(hold), {}, {}
for _, line in ipairs(hold.lines) do of[line[1] .. '\\31' .. line[2]] = line end
for _, row in ipairs(said) do
  local line = of[row[1] .. '\\31' .. row[2]]
  if not line or row[3] > line[3] then return {'not_held', told(hold)} end
end
local left = false
for _, row in ipairs(said) do
  local line = of[row[1] .. '\\31' .. row[2]]
  local units = row[3] - line[4]
  if units > 0 then
    more[#more + 1] = {line[1], line[2], units}
    line[4] = row[3]
    open(hold, line, math.max(0, line[5] - units))
    local free, heard = free_of(line[1], line[2])
    if not version or heard < version then
      set_free(line[1], line[2], free - units, heard)
      if version then call('HINCRBY', of_position('settled', line[1], line[2]), ARGV[3], whole(units)) end
    end
  end
end
for _, line in ipairs(hold.lines) do left = left or line[4] < line[3] end
if #more > 0 then
  if left then save(hold, hold.outcome, hold.ended_at) else save(hold, 'settled', now) end
end
local levels = levels_of(more)
return {'settled', told(hold), was, cjson.encode(more), levels}
""",
    "kept": """
local found = {}
for i = 2, #ARGV do
  local hold = read(ARGV[i])
  if hold then found[#found + 1] = told(hold) end
end
return found
""",
    "levels": """
local levels = levels_of(cjson.decode(ARGV[2]))
return levels
""",
    "active": """
local ties, found = 0, {}
for _, id in ipairs(call('ZRANGEBYSCORE', base .. ':expiry', ARGV[2], ARGV[2])) do
  if id <= ARGV[3] then ties = ties + 1 end
end
for _, id in ipairs(call('ZRANGEBYSCORE', base .. ':expiry', ARGV[2], '+inf', 'LIMIT', ties, ARGV[4])) do
  found[#found + 1] = told(read(id))
end
return found
""",
    "sweep": """
local expired = call('ZRANGEBYSCORE', base .. ':expiry', '-inf', now, 'LIMIT', 0, ARGV[3])
for _, id in ipairs(expired) do expire(id) end
local old = call('ZRANGEBYSCORE', base .. ':ended', '-inf', ARGV[2], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(old) do
  call('HDEL', base .. ':keys', call('HGET', base .. ':hold:' .. id, 'key'))
  call('DEL', base .. ':hold:' .. id)
  call('ZREM', base .. ':ended', id)
end
return {#expired, #old}
""",
}

SCRIPTS = {name: _COMMON + body for name, body in _BODIES.items()}
