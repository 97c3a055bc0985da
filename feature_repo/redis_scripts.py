"""What Redis does by itself, so that nothing comes between: the guard of a write, the beginning and end of a publication, erasure.

In each value: event time (8 bytes, big-endian), publication (4 bytes; the highest bit: it follows later versions), then the row.
"""

# KEYS: entities. ARGV: both places, the publication that writes (nought: at once), the one that is read and its newest event time, or the project and
# the view where the script is to look that up; then the values. Returns how many were written, how many are there already, and which are older than
# what is there.
WRITE = """
local call, unpack = redis.call, struct.unpack
local f0, f1 = ARGV[1], ARGV[2]
local epoch, done, asof = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local FOLLOWS = 2147483648
local written, same, skipped = 0, 0, {}
if not done then
  local number, at = string.match(call('HGET', ARGV[4], ARGV[5]) or '0 0 ', '^(%d+) (-?%d+) ')
  done, asof = tonumber(number), tonumber(at)
end
for i = 1, #KEYS do
  local key, new = KEYS[i], ARGV[i + 5]
  local had = call('HMGET', key, f0, f1, '!')
  local a, b, gone = had[1], had[2], had[3]
  if not a and not b and not gone then
    if #new > 12 then
      call('HSET', key, f0, new)
      written = written + 1
    end
  else
    local at, how = unpack('>i8I4', new)
    local skip = false
    -- What is read: of two publications the later; of a publication and what was written at once, the newer.
    local best, best_at, best_by, place, other = nil, nil, nil, nil, nil
    for slot = 1, 2 do
      local value = slot == 1 and a or slot == 2 and b
      if value then
        local was, by = unpack('>i8I4', value)
        local follows = by >= FOLLOWS
        if follows then by = by - FOLLOWS end
        if by <= done then
          if follows and asof > was then was = asof end
          local wins = not best
          if best then
            if by > 0 and best_by > 0 then wins = by > best_by else wins = was > best_at or (was == best_at and by > best_by) end
            other = wins and place or slot
          end
          if wins then best, best_at, best_by, place = value, was, by, slot end
        elseif epoch > 0 and by == epoch and was > at then
          skip = true
        end
      end
    end
    if best and #best <= 12 then -- taken away by a version: as if nothing had been there
      call('HDEL', key, place == 1 and f0 or f1)
      if place == 1 then a = false else b = false end
      if other then
        call('HDEL', key, other == 1 and f0 or f1)
        if other == 1 then a = false else b = false end
      end
      best, place, other = nil, nil, nil
    end
    if skip or (gone and at <= tonumber(gone)) then
      skipped[#skipped + 1] = i
    elseif best and best_at > at then
      skipped[#skipped + 1] = i
    elseif best and #best == #new and (best_at == at or (how >= FOLLOWS and unpack('>I4', best, 9) >= FOLLOWS))
      and string.sub(best, 13) == string.sub(new, 13) then
      same = same + 1
    elseif not best and #new <= 12 then
      same = same + 1
    else
      local target
      if epoch == 0 then
        target = (place == 1 and f0) or (place == 2 and f1) or (a and f1) or f0
        if other then call('HDEL', key, other == 1 and f0 or f1) end
      else
        target = (place == 1 and f1) or f0
      end
      call('HSET', key, target, new)
      written = written + 1
    end
  end
end
return {written, same, skipped}
"""

# The same where nothing of the view can be there yet: half the work. Returns how many were written, nought, and which were there after all.
FIRST = """
local call, f0, written, there = redis.call, ARGV[1], 0, {}
for i = 1, #KEYS do
  if call('HSETNX', KEYS[i], f0, ARGV[i + 5]) == 1 then written = written + 1 else there[#there + 1] = i end
end
return {written, 0, there}
"""

# KEYS: the project. ARGV: view, token, version, seconds after which a silent publication counts as dead.
# Returns how it went, the publication, the one that is read, and one whose remains are to be taken away first (nought: none).
BEGIN = """
local call = redis.call
local field = 'pending:' .. ARGV[1]
local now = call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1e6
local view = call('HGET', KEYS[1], 'view:' .. ARGV[1])
local done = view and tonumber(string.match(view, '^%d+')) or 0
local before = call('HGET', KEYS[1], field)
local epoch, left = done + 1, 0
if before then
  local token, number, at, version = string.match(before, '^(%S+) (%d+) (%S+) (.*)$')
  if token == ARGV[2] then
    call('HSET', KEYS[1], field, token .. ' ' .. number .. ' ' .. string.format('%.3f', now) .. ' ' .. version)
    return {'renewed', number, tostring(done), tostring(tonumber(number) - 1 > done and tonumber(number) - 1 or 0)}
  end
  if now - tonumber(at) < tonumber(ARGV[4]) then return {'busy', '0', '0', '0'} end
  if version == ARGV[3] then
    epoch = tonumber(number)
  else
    epoch, left = tonumber(number) + 1, tonumber(number)
  end
end
call('HSET', KEYS[1], field, ARGV[2] .. ' ' .. epoch .. ' ' .. string.format('%.3f', now) .. ' ' .. ARGV[3])
return {'begun', tostring(epoch), tostring(done), tostring(left)}
"""

# KEYS: the project. ARGV: view, token, what the view then stands at.
COMMIT = """
local field = 'pending:' .. ARGV[1]
local before = redis.call('HGET', KEYS[1], field)
if redis.call('HGET', KEYS[1], 'view:' .. ARGV[1]) == ARGV[3] then return 1 end -- asked again
if not before or string.match(before, '^%S+') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'view:' .. ARGV[1], ARGV[3])
redis.call('HDEL', KEYS[1], field)
return 1
"""

# KEYS: the project. ARGV: view, token. A publication that failed: whoever comes next need not wait for it.
FAILED = """
local field = 'pending:' .. ARGV[1]
local token, number, at, version = string.match(redis.call('HGET', KEYS[1], field) or '', '^(%S+) (%d+) (%S+) (.*)$')
if token == ARGV[2] then redis.call('HSET', KEYS[1], field, token .. ' ' .. number .. ' 0 ' .. version) end
return 1
"""

# KEYS: an entity. ARGV: both places, the publication whose values go.
SWEEP = """
for slot = 1, 2 do
  local value = redis.call('HGET', KEYS[1], ARGV[slot])
  if value and struct.unpack('>I4', value, 9) % 2147483648 == tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], ARGV[slot]) end
end
return 1
"""

# KEYS: an entity. ARGV: since when nothing said of it counts, in microseconds. Returns how many rows went.
ERASE = """
local gone = redis.call('HGET', KEYS[1], '!')
local at = tonumber(ARGV[1])
if gone and tonumber(gone) > at then at = tonumber(gone) end
local rows = {}
for i, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field ~= '!' then rows[string.sub(field, 1, -2)] = true end
end
local count = 0
for _ in pairs(rows) do count = count + 1 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], '!', string.format('%d', at))
return count
"""
